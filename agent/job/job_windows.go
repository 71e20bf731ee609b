package job

import "os"

// Signals are those that are to be passed on by Signal. A console gives Ctrl-C to the command as well: this process only has to
// survive it.
func Signals() []os.Signal { return []os.Signal{os.Interrupt} }

func inForeground() bool { return false }

func (j *Job) setGroup() {}

// ID is the process's.
func (j *Job) ID() int { return j.cmd.Process.Pid }

// Signal does nothing.
func (j *Job) Signal(os.Signal) {}

func statusOf(state *os.ProcessState) int { return state.ExitCode() }
