"""Speech to text: encoders over spectra, trained by CTC."""
