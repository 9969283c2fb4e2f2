"""Speed of a backbone, measured alternately with SpikingJelly and a dense matrix product."""
