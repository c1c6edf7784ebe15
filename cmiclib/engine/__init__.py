"""What torch needs around a method: devices, several processes, folded convolutions. It knows no method."""
