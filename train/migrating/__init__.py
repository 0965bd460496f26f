"""Fine-tunes of an OpenAI account taken over: fetched, recorded, trained again, served by their old names."""
