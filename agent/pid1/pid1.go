// Package pid1 lets a program be the first process of a container.
//
// The first process inherits every process whose parent has ended, and has to wait for it, or the dead fill the table of processes.
// A program that also has children of its own cannot do that without taking their end away from whoever waits for them. So a
// first process here starts the program a second time, as its child, and does nothing but wait and pass signals on:
//
//	func main() {
//		pid1.Run()
//		…
//	}
package pid1

import "os"

// Run returns at once, unless this is the first process: then it runs the program in a child and ends this process as the child
// has ended, with 128 and its number after a signal. Whatever else the container runs ends with it.
func Run() {
	if os.Getpid() == 1 {
		os.Exit(supervise(os.Args))
	}
}
