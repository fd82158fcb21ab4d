"""What the commands do: training, validation, calibration, and files of stars and halos."""
