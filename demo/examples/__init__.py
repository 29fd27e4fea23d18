"""What the page offers to try."""

from pathlib import Path

PORTRAIT = Path(__file__).parent / "portrait.jpg"
SENTENCES = {
    "A greeting": "Good morning. How are you today?",
    "A journey": "The train to the old harbor leaves in five minutes, from platform 3.",
    "A recipe": "Melt the butter slowly. Add two eggs, a cup of sugar, and the juice of one lemon.",
}
PARAGRAPH = (
    "The lighthouse stood at the end of a narrow road. Every evening its keeper climbed the stairs, and lit the lamp. "
    "Ships far out at sea turned their bows toward the light. In the morning the keeper went down again, made a pot "
    "of tea, and wrote in his book what the night had brought. Most of the time he wrote that nothing had happened."
)
