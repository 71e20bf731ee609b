//go:build unix

package agent

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"
)

// maxPending is more than a kernel holds of a terminal's output. Whatever was written before the program exited is within
// it; a background process that goes on writing must not keep the session open.
const maxPending = 256 << 10

// terminal is a PTY. The agent keeps its own descriptor of the slave: the master then never reports EIO because the last writer
// has left while the program lives (it may open /dev/tty again), and no output is dropped when the program exits (macOS does).
type terminal struct {
	name    string // of the slave, like /dev/pts/3
	master  *os.File
	slave   *os.File
	closing sync.Once
}

// openTerminal makes a PTY of a size with the encoded modes of RFC 4254 §8.
func openTerminal(size winsize, modes []byte) (*terminal, error) {
	m, slave, err := pty.Open()
	if err != nil {
		return nil, fmt.Errorf("open a PTY: %w", err)
	}
	defer m.Close()
	master, err := pollable(m)
	if err != nil {
		slave.Close()
		return nil, fmt.Errorf("open a PTY: %w", err)
	}
	t := &terminal{name: slave.Name(), master: master, slave: slave}
	if err := errors.Join(t.resize(size), t.setModes(modes)); err != nil {
		t.close()
		return nil, fmt.Errorf("set up a PTY: %w", err)
	}
	return t, nil
}

// pollable returns the same open file for the runtime's poller: creack/pty leaves it blocking, and then neither deadlines nor
// Close reach a read that waits.
func pollable(f *os.File) (*os.File, error) {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, err
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}

// control calls f with the master's descriptor.
func (t *terminal) control(f func(fd int) error) error {
	conn, err := t.master.SyscallConn()
	if err != nil {
		return err
	}
	var ferr error
	err = conn.Control(func(fd uintptr) { ferr = f(int(fd)) })
	return errors.Join(err, ferr)
}

// resize sets the size; the kernel tells the foreground job when it differs, and gathers what comes faster than that is heard.
func (t *terminal) resize(size winsize) error {
	ws := unix.Winsize{Col: clip(size.Columns), Row: clip(size.Rows), Xpixel: clip(size.Width), Ypixel: clip(size.Height)}
	return t.control(func(fd int) error { return unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &ws) })
}

func clip(n uint32) uint16 { return uint16(min(n, 1<<16-1)) }

// foreground returns the process group in the foreground.
func (t *terminal) foreground() (group int, err error) {
	err = t.control(func(fd int) error {
		group, err = unix.IoctlGetInt(fd, unix.TIOCGPGRP)
		return err
	})
	return group, err
}

// breakInterrupts tells whether a break on the line is to interrupt the foreground job.
func (t *terminal) breakInterrupts() (on bool, err error) {
	err = t.control(func(fd int) error {
		termios, err := unix.IoctlGetTermios(fd, getTermios)
		on = err == nil && termios.Iflag&unix.BRKINT != 0 && termios.Iflag&unix.IGNBRK == 0
		return err
	})
	return on, err
}

// show copies the output to w until the program has exited and the terminal is empty. It returns errViewLost when gone is
// closed or a write fails before.
func (t *terminal) show(w io.Writer, exited, gone <-chan struct{}) error {
	defer interruptReads(exited, gone, t.master)()
	buf := make([]byte, 32<<10)
	for {
		n, err := t.gather(buf)
		if n > 0 {
			if _, err := w.Write(buf[:n]); err != nil {
				return errViewLost
			}
		}
		if err != nil {
			break
		}
	}
	select {
	case <-exited:
		return t.drain(w, buf)
	case <-gone:
		return errViewLost
	}
}

// gather waits for output and then takes what more there is without waiting: a read returns 4 KiB at most, and each write to a
// guest costs a packet. A single echoed character is not held back.
func (t *terminal) gather(buf []byte) (int, error) {
	n, err := t.master.Read(buf)
	for err == nil && n < len(buf) {
		m := t.readNow(buf[n:])
		if m == 0 {
			break
		}
		n += m
	}
	return n, err
}

// readNow reads what is pending and returns 0 when there is nothing. Linux moves what a program wrote to the master in the
// background, but waits for that before it says that there is nothing.
func (t *terminal) readNow(buf []byte) (n int) {
	t.control(func(fd int) (err error) {
		for {
			if n, err = unix.Read(fd, buf); err != unix.EINTR {
				return err
			}
		}
	})
	return max(n, 0)
}

// drain copies what is pending after the program has exited.
func (t *terminal) drain(w io.Writer, buf []byte) error {
	for total := 0; total < maxPending; {
		n := t.readNow(buf)
		if n == 0 {
			break
		}
		if _, err := w.Write(buf[:n]); err != nil {
			return errViewLost
		}
		total += n
	}
	return nil
}

// close hangs up: the kernel sends SIGHUP to the leader of the terminal's session and to its foreground job.
func (t *terminal) close() {
	t.closing.Do(func() {
		t.master.Close()
		t.slave.Close()
	})
}
