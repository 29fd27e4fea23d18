"""What a server that is open to many visitors takes on, in one place.

Photos and clips have limits of their own, next to what reads them: `encoder.face` and `encoder.audio`.
"""

UPLOAD_BYTES = 10_000_000
REQUEST_BYTES = UPLOAD_BYTES + 100_000  # an upload and the form around it
TEXT_CHARACTERS = 500
SPEAKING_SECONDS = 60.0  # of processor time for one text

AT_ONCE = 1  # texts spoken at a time; two on the same cores would each take twice as long
WAITING = 16  # requests in line: eight visitors with a sentence each, and a click besides
VISITORS = 500  # whose voices and photos are remembered

FILES_KEPT = 3600  # seconds that uploads and results stay on the disk
SWEPT_EVERY = 600  # seconds

FACES_SHOWN = 12  # of one photo
VOICES_KEPT = 24  # of one visitor
VOICE_IDS_KEPT = 256  # of all programs together
VOICE_FILE_BYTES = 100_000
CANDIDATES = 4
LESSON_FILES = 40  # photos and clips for one fine-tuning
LESSON_STEPS = 500
LESSONS_KEPT = 4  # bundles made by visitors
