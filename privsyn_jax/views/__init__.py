"""What a person looks at from Python: folders of runs and studies as tables and plots, and objects as HTML."""
