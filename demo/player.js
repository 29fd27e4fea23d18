// Plays the sentences of a text one after the other while the next ones are still being made.
(() => {
    let context, end = 0, played = 0, queue = Promise.resolve(), sources = [], run = 0, cancelling = false;

    const stop = () => {
        run += 1;
        sources.forEach(source => { try { source.stop(); } catch (_) { /* it has ended */ } });
        sources = [];
        end = 0;
    };

    const begin = () => {
        stop();
        cancelling = false;
        played = 0;
        context = context || new AudioContext();
        context.resume();  // browsers allow sound only once somebody has pressed something
    };

    const sound = async (url, mine) => {
        const buffer = await context.decodeAudioData(await (await fetch(url)).arrayBuffer());
        if (mine !== run) return;
        const source = context.createBufferSource();
        source.buffer = buffer;
        source.connect(context.destination);
        end = Math.max(end, context.currentTime + 0.05);
        source.start(end);
        end += buffer.duration;
        sources.push(source);
    };

    const play = files => {
        const mine = run;
        for (const file of (files || []).slice(played)) {
            played += 1;
            queue = queue.then(() => sound(file.url, mine)).catch(() => {});
        }
    };

    // before gradio learns of it
    document.addEventListener('click', event => {
        if (!event.target.closest('.f2v-cancel')) return;
        stop();
        cancelling = true;
    }, true);
    const cancelled = () => {  // asked once of each
        const was = cancelling;
        cancelling = false;
        return was;
    };

    window.face2voice = { begin, play, cancelled, heard: () => played };
    // whoever presses play on a result wants to hear that alone
    document.addEventListener('play', () => stop(), true);
})();
