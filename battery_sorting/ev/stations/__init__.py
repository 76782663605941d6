"""What the nodes of the EV line's stations do, free of ROS: each has its threads, its device and its machine."""
