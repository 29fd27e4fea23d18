"""Each published layout, made small, is read as what it is."""

import json
import os
from pathlib import Path

import pytest

from face2voice.corpora import CORPORA, Utterance, read_corpus, read_manifest, write_manifest
from savedmodels import InputError

DATA = Path(os.environ.get("FACE2VOICE_DATA", "/nowhere"))


def make(root: Path, files: dict[str, str]) -> Path:
    """A folder with these files; readers look at names and tables, never into sound or pictures."""
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    return root


def read(name: str, root: Path) -> list[Utterance]:
    return list(read_corpus(name, root))


def test_librispeech(tmp_path):
    make(
        tmp_path,
        {
            "SPEAKERS.TXT": ";ID  |SEX| SUBSET\n103  | F | train-clean-100  | 25 | Karen\n84 | M | dev-clean | 8 | X\n",
            "train-clean-100/103/1240/103-1240-0000.flac": "",
            "train-clean-100/103/1240/103-1240-0001.flac": "",
            "train-clean-100/103/1240/103-1240.trans.txt": "103-1240-0000 CHAPTER ONE\n103-1240-0002 LOST\n",
            "train-clean-100/103/1240/103-1240.alignment.txt": '103-1240-0000 ",CHAPTER,,ONE," "0.5,0.9,1.1,1.5,2.0"\n',
            "dev-clean/84/121/84-121-0000.flac": "",
        },
    )
    dev, first, second, lost = read("librispeech", tmp_path)
    assert (dev.speaker, dev.sex, dev.split, dev.text) == ("84", "m", "dev", None)
    assert (first.speaker, first.sex, first.split, first.text) == ("103", "f", "train", "CHAPTER ONE")
    assert first.words == (("CHAPTER", 0.5, 0.9), ("ONE", 1.1, 1.5))
    assert second.text is None
    assert lost.text == "LOST"
    assert not lost.audio.exists()
    assert read("librispeech", tmp_path / "dev-clean")[0].sex == "m"  # a subset alone


def test_libritts(tmp_path):
    clip = "test-clean/1089/134686/1089_134686_000001_000001"
    make(
        tmp_path,
        {
            "speakers.tsv": "READER\tGENDER\tSUBSET\tNAME\n1089\tM\ttest-clean\tPeter\n",
            f"{clip}.wav": "",
            f"{clip}.original.txt": "He hoped for 3.",
            f"{clip}.normalized.txt": "He hoped for three.",
        },
    )
    (utterance,) = read("libritts", tmp_path)
    assert utterance == Utterance(tmp_path / f"{clip}.wav", "He hoped for three.", "1089", "m", split="test")


def test_vctk(tmp_path):
    old, new = tmp_path / "0.80", tmp_path / "0.92"
    people = "ID  AGE  GENDER  ACCENTS  REGION \n{}  23  F    English    Southern  England\n"
    make(old, {"speaker-info.txt": people.format("225"), "wav48/p225/p225_001.wav": "", "txt/p225/p225_001.txt": "Hi."})
    make(
        new,
        {
            "speaker-info.txt": people.format("p225")
            + "s5  24  M  British\np315 18 M  American (mic2 files unavailable)\n",
            "wav48_silence_trimmed/p225/p225_001_mic1.flac": "",
            "wav48_silence_trimmed/p225/p225_001_mic2.flac": "",
            "wav48_silence_trimmed/s5/s5_001_mic1.flac": "",
            "txt/p225/p225_001.txt": "Hi.\n",
        },
    )
    assert read("vctk", old) == [Utterance(old / "wav48/p225/p225_001.wav", "Hi.", "p225", "f", 23.0)]
    first, second = read("vctk", new)
    assert (first.text, first.speaker, first.sex, first.age) == ("Hi.", "p225", "f", 23.0)
    assert (second.text, second.speaker, second.sex) == (None, "s5", "m")


def test_ljspeech(tmp_path):
    make(tmp_path, {"metadata.csv": 'LJ001-0001|"Dr. X|Doctor X\nLJ001-0002|Two.|Two.\n', "wavs/LJ001-0001.wav": ""})
    first, second = read("ljspeech", tmp_path)
    assert first == Utterance(tmp_path / "wavs" / "LJ001-0001.wav", "Doctor X", "LJ", "f")
    assert not second.audio.exists()


def test_speechocean762(tmp_path):
    make(
        tmp_path,
        {
            "train/wav.scp": "000010011\tWAVE/SPEAKER0001/000010011.WAV\n",
            "train/text": "000010011\tWE CALL IT BEAR\n",
            "train/utt2spk": "000010011\t0001\n",
            "train/spk2gender": "0001 m\n",
            "train/spk2age": "0001\t6\n",
            "test/wav.scp": "000030012\tWAVE/SPEAKER0003/000030012.WAV\n",
            "WAVE/SPEAKER0001/000010011.WAV": "",
        },
    )
    first, second = read("speechocean762", tmp_path)
    audio = tmp_path / "WAVE/SPEAKER0001/000010011.WAV"
    assert first == Utterance(audio, "WE CALL IT BEAR", "0001", "m", 6.0)
    assert (second.speaker, second.split, second.text) == ("000030012", "test", None)


def test_voxceleb1(tmp_path):
    make(
        tmp_path,
        {
            "vox1_meta.csv": "VoxCeleb1 ID\tVGGFace1 ID\tGender\tNationality\tSet\n"
            "id10001\tA.J._Buckley\tm\tIreland\tdev\nid10270\tEartha_Kitt\tf\tUSA\ttest\n",
            "wav/id10001/1zcIwhmdeo4/00001.wav": "",
            "wav/id10270/5r0dWxy17C8/00002.wav": "",
            "unzippedFaces/A.J._Buckley/1.6/1zcIwhmdeo4/0000375.jpg": "",
            "unzippedFaces/A.J._Buckley/1.6/1zcIwhmdeo4/0000400.jpg": "",
        },
    )
    photos, first, second = read("voxceleb1", tmp_path)
    assert (photos.speaker, photos.sex, photos.audio, len(photos.faces)) == ("id10001", "m", None, 2)
    assert (first.speaker, first.sex, first.split, first.video) == ("id10001", "m", "train", None)
    assert (second.speaker, second.sex, second.split) == ("id10270", "f", "test")
    (tmp_path / "vox1_meta.csv").unlink()
    assert [(u.speaker, u.split) for u in read("voxceleb1", tmp_path)] == [
        ("A.J._Buckley", "train"),
        ("id10001", "train"),
        ("id10270", "test"),
    ]


def test_voxceleb2(tmp_path):
    clip = "id00012/21Uxsk56VDQ/00001"
    make(
        tmp_path,
        {
            "vox2_meta.csv": "VoxCeleb2 ID ,VGGFace2 ID ,Gender ,Set \nid00012 ,n000012 ,m ,dev \n",
            f"dev/aac/{clip}.m4a": "",
            f"dev/mp4/{clip}.mp4": "",
            "dev/mp4/id00012/21Uxsk56VDQ/00002.mp4": "",
            "test/aac/id00017/01dfn2spqyE/00001.m4a": "",
        },
    )
    both, video, sound = read("voxceleb2", tmp_path)
    assert (both.audio, both.video) == (tmp_path / f"dev/aac/{clip}.m4a", tmp_path / f"dev/mp4/{clip}.mp4")
    assert (both.speaker, both.sex, both.split) == ("id00012", "m", "train")
    assert video.audio == video.video
    assert (sound.speaker, sound.split, sound.video) == ("id00017", "test", None)


def test_hq_voxceleb(tmp_path):
    make(
        tmp_path,
        {
            "vox1/vox1_meta.csv": "VoxCeleb1 ID\tVGGFace1 ID\tGender\tSet\nid10001\tA.J._Buckley\tm\tdev\n",
            "vox2/full_vox2_meta.csv": "VoxCeleb2ID,Name,VGGFace2ID,Gender,Set\nid00012,Aaron_Schock,n000012,m,dev\n",
            "split.json": json.dumps(
                {"vox1": {"train": [], "val": ["A.J._Buckley"]}, "vox2": {"test": ["Aaron_Schock"]}}
            ),
            "vox1/origin_faces/A.J._Buckley/0.jpg": "",
            "vox1/masked_faces/A.J._Buckley/0.jpg": "",
            "vox2/masked_faces/Aaron_Schock/0.jpg": "",
        },
    )
    first, second = read("hq-voxceleb", tmp_path)
    assert (first.speaker, first.sex, first.split) == ("id10001", "m", "dev")
    assert first.faces == (tmp_path / "vox1/origin_faces/A.J._Buckley/0.jpg",)
    assert (second.speaker, second.sex, second.split) == ("id00012", "m", "test")


def test_avspeech(tmp_path):
    make(
        tmp_path,
        {
            "avspeech_train.csv": "--a1,1.000000,4.5,0.5,0.25\nbbb,2.0,6.0,0.1,0.2\nnot_there,0,3,0.5,0.5\n",
            "avspeech_test.csv": "ccc,3,7,0.5,0.5\n",
            "clips/--a1_1.000000_4.5.mp4": "",
            "clips/bbb.mkv": "",
            "clips/ccc_3-7.mp4": "",
        },
    )
    cut, whole, test = read("avspeech", tmp_path)
    assert (cut.speaker, cut.span, cut.box, cut.audio) == ("--a1", None, (0.5, 0.25, 0.5, 0.25), cut.video)
    assert (whole.speaker, whole.span) == ("bbb", (2.0, 6.0))
    assert test.split == "test"


def test_lrw(tmp_path):
    make(tmp_path, {f"lipread_mp4/ABOUT/{split}/ABOUT_0000{i}.mp4": "" for i, split in enumerate(("train", "val"))})
    first, second = read("lrw", tmp_path)
    assert (first.text, first.speaker, first.split, first.audio) == ("ABOUT", "ABOUT_00000", "train", first.video)
    assert second.split == "dev"


def test_grid(tmp_path):
    make(
        tmp_path,
        {
            "s1/bbaf2n.mpg": "",
            "audio/s1/bbaf2n.wav": "",
            "align/s1/bbaf2n.align": "0 25000 sil\n25000 30000 bin\n30000 35000 blue\n",
            "s20/video/lwizza.mpg": "",
        },
    )
    first, second = read("grid", tmp_path)
    assert first.text == "bin blue at f two now"
    assert (first.audio.suffix, first.video.suffix, first.speaker) == (".wav", ".mpg", "s1")
    assert first.words == (("bin", 1.0, 1.2), ("blue", 1.2, 1.4))
    assert (second.text, second.speaker, second.audio) == ("lay white in z zero again", "s20", second.video)


def test_lrs3(tmp_path):
    make(
        tmp_path,
        {
            "pretrain/00j9bKdiOjk/00001.mp4": "",
            "pretrain/00j9bKdiOjk/00001.txt": "Text:  SO WE\nConf:  4\nRef:   00j9\n\n"
            "FRAME X Y W H\n1 0.4 0.1 0.2 0.3\n\nWORD START END ASDSCORE\nSO 0.11 0.27 2.1\nWE 0.3 0.4 5\n",
            "test/0Fi83BHQsMA/00002.mp4": "",
            "test/0Fi83BHQsMA/00002.txt": "Text:  HELLO\nConf:  4\n",
        },
    )
    first, second = read("lrs3", tmp_path)
    assert (first.text, first.speaker, first.split) == ("SO WE", "00j9bKdiOjk", "train")
    assert first.words == (("SO", 0.11, 0.27), ("WE", 0.3, 0.4))
    assert (second.text, second.split, second.words) == ("HELLO", "test", ())


def test_voteview(tmp_path):
    rows = [f"{i:06d},{'FM'[i % 2]},1950,2000,wiki,images/{i:06d}.jpg\n" for i in range(40)]
    make(
        tmp_path,
        {
            "members.csv": "icpsr,sex,birth_year,photo_year_approx,source,image\n" + "".join(rows),
            "images/000000.jpg": "",
        },
    )
    people = read("voteview", tmp_path)
    assert people[0] == Utterance(None, None, "000000", "f", 50.0, (tmp_path / "images/000000.jpg",), people[0].split)
    assert 0 < sum(person.split == "test" for person in people) < 20


def test_people(tmp_path):
    make(
        tmp_path, {"anna/a.wav": "", "anna/a.txt": "Hello.", "anna/photos/1.JPG": "", "ben/b.mp4": "", "stray.wav": ""}
    )
    clip, photo, video = read("people", tmp_path)
    assert (clip.speaker, clip.text, clip.video) == ("anna", "Hello.", None)
    assert (photo.speaker, photo.audio, len(photo.faces)) == ("anna", None, 1)
    assert (video.speaker, video.audio) == ("ben", video.video)


def test_manifest_carries_everything(tmp_path):
    utterances = [
        Utterance(
            *(tmp_path / "a.mp4", "Hello.", "anna", "f", 30.0, (tmp_path / "a.jpg",), "dev", (1.0, 2.5)),
            video=tmp_path / "a.mp4",
            box=(0.1, 0.2, 0.3, 0.4),
            words=(("Hello.", 1.1, 2.0),),
        ),
        Utterance(speaker="ben", faces=(Path("/elsewhere/b.jpg"),)),
    ]
    write_manifest(tmp_path / "m.jsonl", utterances)
    assert read_manifest(tmp_path / "m.jsonl") == utterances
    for record, problem in (
        ({"speaker": "x"}, "neither"),
        ({"audio": "a.wav", "split": "valid"}, "split"),
        ({"audio": "a.wav", "span": [2, 1]}, "span"),
        ({"audio": "a.wav", "voice": 1}, "voice"),
        ({"audio": "a.wav", "sex": "female"}, "sex"),
        ({"audio": "a.wav", "age": "old"}, "old"),
    ):
        (tmp_path / "m.jsonl").write_text(json.dumps(record) + "\n")
        with pytest.raises(InputError, match=f"line 1.*{problem}"):
            read_manifest(tmp_path / "m.jsonl")


def test_a_name_that_is_not_utf8(tmp_path):
    clip = Utterance(tmp_path / os.fsdecode(b"caf\xe9.wav"), "Hello.")
    write_manifest(tmp_path / "m.jsonl", [clip])
    assert read_manifest(tmp_path / "m.jsonl") == [clip]


def test_a_damaged_table_of_one_clip_costs_no_other(tmp_path, caplog):
    chapter, rows = "librispeech/train-clean-100/103/1240/103-1240", "x,0.0,3.0,0.5,0.5\n"
    make(
        tmp_path,
        {
            f"{chapter}-0000.flac": "",
            f"{chapter}.alignment.txt": '103-1240-0000 ",CHAP',
            "avspeech/avspeech_train.csv": f"{rows}y,3.0\nz,0.0,3.0,0.5,0.5\n",
            "avspeech/x.mp4": "",
            "avspeech/z.mp4": "",
            "grid/s1/bbaf2n.mpg": "",
            "grid/s1/bbaf2n.align": "0 25000 sil\n2500",
            "lrs3/test/a/1.mp4": "",
            "lrs3/test/a/1.txt": "Text:  HELLO\nWORD START END ASDSCORE\nHELLO 0.1",
        },
    )
    assert [clip.words for name in ("librispeech", "grid", "lrs3") for clip in read(name, tmp_path / name)] == [()] * 3
    assert [clip.speaker for clip in read("avspeech", tmp_path / "avspeech")] == ["x", "z"]
    for named in ("103-1240.alignment.txt", "bbaf2n.align", "1.txt", "avspeech_train.csv"):
        assert named in caplog.text


@pytest.mark.parametrize("name", [name for name in CORPORA if name != "manifest"])
def test_a_wrong_folder_is_told_in_one_line(name, tmp_path):
    for folder in (tmp_path / "nowhere", make(tmp_path, {"readme.txt": "", "some/clip.xyz": ""})):
        with pytest.raises(InputError) as error:
            read_corpus(name, folder)
        assert str(tmp_path) in str(error.value)
        assert "\n" not in str(error.value)


def test_unusable_corpora_are_told_of(tmp_path):
    make(tmp_path, {"train-clean-100/1/2/1-2.trans.txt": "1-2-0000 HELLO\n1-2-0001 THERE\n"})
    with pytest.raises(InputError, match="lists 2 clips but holds none"):
        read_corpus("librispeech", tmp_path)
    make(tmp_path, {"avspeech_train.csv": "id,from,to\n"})
    with pytest.raises(InputError, match="not as avspeech publishes it"):
        read_corpus("avspeech", tmp_path)
    with pytest.raises(InputError, match="choose one of librispeech"):
        read_corpus("librispeach", tmp_path)


@pytest.mark.skipif(not DATA.is_dir(), reason="FACE2VOICE_DATA names no folder of data")
def test_real_data():
    libri = read("librispeech", DATA / "speech" / "LibriSpeech")
    ocean = read("speechocean762", DATA / "speech" / "speechocean762")
    portraits = read("voteview", DATA / "faces" / "voteview")
    for utterances in (libri, ocean, portraits):
        assert all(file.is_file() for utterance in utterances for file in utterance.files)
        assert {utterance.sex for utterance in utterances} == {"f", "m"}
    assert len(libri) == len({u.speaker for u in libri}) > 200
    assert len(ocean) == 4300
    assert all(u.text and u.age for u in ocean)
    assert not {u.speaker for u in ocean if u.split == "train"} & {u.speaker for u in ocean if u.split == "test"}
    assert all(20 < person.age < 100 for person in portraits)
