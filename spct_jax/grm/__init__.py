"""What a generative reward model is asked, says, and is credited with."""
