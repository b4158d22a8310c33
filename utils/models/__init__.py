"""The model: what each base needs (`bases`), one loaded in 4 bits (`loading`), and its reports (`writer`)."""
