//go:build unix

package agent

import (
	"strings"

	"golang.org/x/sys/unix"
)

// signalNames are those of RFC 4254 §6.10.
var signalNames = map[string]unix.Signal{
	"ABRT": unix.SIGABRT,
	"ALRM": unix.SIGALRM,
	"FPE":  unix.SIGFPE,
	"HUP":  unix.SIGHUP,
	"ILL":  unix.SIGILL,
	"INT":  unix.SIGINT,
	"KILL": unix.SIGKILL,
	"PIPE": unix.SIGPIPE,
	"QUIT": unix.SIGQUIT,
	"SEGV": unix.SIGSEGV,
	"TERM": unix.SIGTERM,
	"USR1": unix.SIGUSR1,
	"USR2": unix.SIGUSR2,
}

// signalName names a signal for exit-signal. RFC 4254 §6.10 wants local ones to carry a suffix.
func signalName(sig unix.Signal) string {
	for name, s := range signalNames {
		if s == sig {
			return name
		}
	}
	if name := unix.SignalName(sig); name != "" {
		return strings.TrimPrefix(name, "SIG") + "@stagedoor"
	}
	return "UNKNOWN@stagedoor"
}

// signal delivers a signal that the guest asked for. INT and QUIT go where the keyboard would send them, the others to the
// program's own group, as under sshd.
func (p *process) signal(name string) error {
	sig, ok := signalNames[name]
	switch {
	case !ok:
		return unix.EINVAL
	case sig == unix.SIGINT || sig == unix.SIGQUIT:
		return p.signalForeground(sig)
	}
	return p.signalGroup(sig)
}

// interrupt is what a break on the line does: nothing, unless the terminal is set to make it an interrupt (stty brkint).
func (p *process) interrupt() error {
	if p.term == nil {
		return unix.ENOTTY
	}
	if on, err := p.term.breakInterrupts(); err != nil || !on {
		return err
	}
	return p.signalForeground(unix.SIGINT)
}

// signalNumber is the number of a signal that signalName named; 0 for those that RFC 4254 does not know.
func signalNumber(name string) int { return int(signalNames[name]) }
