"""Sets of texts: files, folders, a public set of film reviews and a grammar that writes some."""
