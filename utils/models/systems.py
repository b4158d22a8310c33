"""Who writes reports in step 4, by the names that tables and charts show."""

MODEL = "fine-tuned model"
BASE = "base model without fine-tuning"
SHUFFLED = "images shuffled"
SYSTEMS = (MODEL, BASE, SHUFFLED)

# What a reader of a table with BASE must know.
OF_BASE = (
    f"The {BASE} gets the same views, prompt and headings, but neither adapter nor findings probe: "
    "it was never taught plans, so its headings name no findings."
)
