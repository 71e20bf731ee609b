//go:build unix

package agent

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"sync"
	"time"
)

// process is a program on the host, with the terminal or the pipes it runs on, and everything it started that did not leave its
// session (setsid(2)). It knows nothing of SSH: whatever shows it attaches to it, and may go away without ending it.
//
// On Linux its leader is left a zombie until release. Its pid is the name of its process group and session, and as long as the
// zombie is there the kernel gives that number to no stranger whom hangup would then hit.
type process struct {
	cmd    *exec.Cmd
	term   *terminal // nil without
	stdin  *os.File  // our ends of the pipes; nil with a terminal
	stdout *os.File
	stderr *os.File
	pipes  [3]os.FileInfo // the program's ends of them; nil with a terminal

	exited    chan struct{} // closed when the leader has exited
	noOutput  chan struct{} // closed when nobody is to see more of stdout
	unwatched sync.Once     // closes noOutput
	closing   sync.Once
}

// startProcess starts a program as the leader of a session and process group of its own.
func startProcess(c command) (*process, error) {
	inheritNothing()
	p := &process{
		cmd:      &exec.Cmd{Path: c.path, Args: c.args, Env: c.env, Dir: c.dir, SysProcAttr: leaderOfSession(c.terminal != nil)},
		term:     c.terminal,
		exited:   make(chan struct{}),
		noOutput: make(chan struct{}),
	}
	start := p.startOnPipes
	if p.term != nil {
		start = p.startOnTerminal
	}
	if err := start(); err != nil {
		return nil, err
	}
	go p.watch()
	return p, nil
}

func (p *process) startOnTerminal() error {
	slave := p.term.slave
	p.cmd.Stdin, p.cmd.Stdout, p.cmd.Stderr = slave, slave, slave
	return p.cmd.Start()
}

// startOnPipes uses pipes and not socket pairs, so that programs can open /dev/stdout and /dev/stderr.
func (p *process) startOnPipes() (err error) {
	var theirs [3]*os.File
	if theirs[0], p.stdin, err = os.Pipe(); err == nil {
		if p.stdout, theirs[1], err = os.Pipe(); err == nil {
			p.stderr, theirs[2], err = os.Pipe()
		}
	}
	if err == nil {
		p.cmd.Stdin, p.cmd.Stdout, p.cmd.Stderr = theirs[0], theirs[1], theirs[2]
		err = p.cmd.Start()
	}
	for i, f := range theirs {
		p.pipes[i], _ = f.Stat()
		f.Close() // of a nil *os.File: an error, nothing else
	}
	if err != nil {
		p.closeFiles()
	}
	return err
}

// watch closes exited once the leader has exited.
func (p *process) watch() {
	awaitExit(p.cmd)
	close(p.exited)
}

// Write sends input to the program. It blocks while the program reads none.
func (p *process) Write(b []byte) (int, error) {
	if p.term != nil {
		return p.term.master.Write(b)
	}
	return p.stdin.Write(b)
}

// closeInput tells the program that no more input will come. A terminal cannot tell it that.
func (p *process) closeInput() {
	if p.term == nil {
		p.stdin.Close()
	}
}

// closeOutput tells the program, when it next writes to stdout, that nobody reads that. A terminal cannot tell it: its output is
// shown as before.
func (p *process) closeOutput() {
	if p.term != nil {
		return
	}
	p.unwatched.Do(func() {
		close(p.noOutput)
		p.stdout.Close()
	})
}

// attach shows the program's output until there is no more, or until gone is closed or a write fails: then it returns
// errViewLost, and the program runs on. It may be called again after that, for another view.
//
// Without a terminal the output ends when every process that holds stdout or stderr has closed it, the leader has exited and
// what they wrote has been written. With one it ends when the leader has exited and the terminal is empty: others that still
// hold it are not waited for. That is what sshd does.
func (p *process) attach(stdout, stderr io.Writer, gone <-chan struct{}) error {
	if p.term != nil {
		return p.term.show(stdout, p.exited, gone)
	}
	return p.showPipes(stdout, stderr, gone)
}

func (p *process) showPipes(stdout, stderr io.Writer, gone <-chan struct{}) error {
	defer interruptReads(gone, nil, p.stdout, p.stderr)()
	second := make(chan error, 1)
	go func() { second <- copyPipe(stderr, p.stderr) }()
	first := copyPipe(stdout, p.stdout)
	select {
	case <-p.noOutput:
		first = nil
	default:
	}
	if err := errors.Join(first, <-second); err != nil {
		return errViewLost
	}
	select {
	case <-p.exited:
		return nil
	case <-gone:
		return errViewLost
	}
}

// copyPipe returns nil at the end of the pipe and an error when either side failed before.
func copyPipe(w io.Writer, pipe *os.File) error {
	buf := make([]byte, 32<<10)
	for {
		n, err := pipe.Read(buf)
		if n > 0 {
			if _, err := w.Write(buf[:n]); err != nil {
				return err
			}
		}
		switch {
		case err == io.EOF:
			return nil
		case err != nil:
			return err
		}
	}
}

// interruptReads makes reads of the files fail once a or b is closed, until the function it returns is called.
func interruptReads(a, b <-chan struct{}, files ...*os.File) (stop func()) {
	stopped, done := make(chan struct{}), make(chan struct{})
	setDeadlines(time.Time{}, files) // of an earlier view
	go func() {
		defer close(done)
		select {
		case <-a:
		case <-b:
		case <-stopped:
			return
		}
		setDeadlines(time.Unix(1, 0), files)
	}()
	return func() { close(stopped); <-done }
}

func setDeadlines(t time.Time, files []*os.File) {
	for _, f := range files {
		f.SetReadDeadline(t)
	}
}

// release frees what is left once the output has ended or the program was hung up on, and returns how it ended. What it left
// behind in its session, if anything, is on its own from then on, as under sshd.
func (p *process) release() exit {
	if p.term != nil {
		p.signalGroup(sigHangup)
	}
	p.closeFiles()
	select {
	case <-p.exited:
		p.cmd.Wait()
		return exitOf(p.cmd.ProcessState)
	default: // stuck in the kernel even after SIGKILL
		go p.cmd.Wait()
		return exit{status: -1, signal: "KILL"}
	}
}

func (p *process) closeFiles() {
	p.closing.Do(func() {
		if p.term != nil {
			p.term.close()
			return
		}
		for _, f := range []*os.File{p.stdin, p.stdout, p.stderr} {
			f.Close()
		}
	})
}
