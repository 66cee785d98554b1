"""The whole stack on one machine: emulated AWS, simulated Apple, a simulated customer."""
