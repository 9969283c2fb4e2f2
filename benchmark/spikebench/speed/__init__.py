"""How fast a backbone is: contenders measured in turns, against SpikingJelly and a dense floor."""
