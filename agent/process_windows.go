package agent

import (
	"errors"
	"io"
	"os"
	"time"
)

var errUnsupported = errors.New("shells and commands on a Windows host are not supported yet; sftp is")

// process is never started here.
type process struct{}

func startProcess(command) (*process, error) { return nil, errUnsupported }

func (p *process) Write([]byte) (int, error)                                   { return 0, errUnsupported }
func (p *process) closeInput()                                                 {}
func (p *process) closeOutput()                                                {}
func (p *process) attach(stdout, stderr io.Writer, gone <-chan struct{}) error { return errUnsupported }
func (p *process) hangup(grace time.Duration)                                  {}
func (p *process) release() exit                                               { return exit{status: 1} }
func (p *process) signal(name string) error                                    { return errUnsupported }
func (p *process) interrupt() error                                            { return errUnsupported }

// signalNumber is of no use here.
func signalNumber(string) int { return 0 }

// inheritNothing has nothing to do: programs inherit only what they are given.
func inheritNothing() {}

// terminal is never opened here.
type terminal struct{ name string }

func openTerminal(winsize, []byte) (*terminal, error) { return nil, errUnsupported }

func (t *terminal) resize(winsize) error { return errUnsupported }
func (t *terminal) close()               {}

// loginShell names the shell that errUnsupported keeps from starting.
func loginShell() string { return os.Getenv("COMSPEC") }
