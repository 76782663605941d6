"""The EV line: what is decided about retired prismatic cells, without ROS, hardware or clock."""
