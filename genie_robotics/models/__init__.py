"""The three components of Genie and what they are made of. Imports nothing else of genie_robotics."""
