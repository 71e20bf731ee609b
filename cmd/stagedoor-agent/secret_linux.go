package main

import "golang.org/x/sys/unix"

// hideFromGuests keeps this process's environment and memory, where the token
// is, from other processes of the same user, which guests' sessions are: a
// process that is not dumpable has its files in /proc given to root (proc(5)).
// What it executes is dumpable again. Against guests who are root it does
// nothing.
func hideFromGuests() error {
	return unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
}
