"""What clients of other projects expect of a server, said by this one."""
