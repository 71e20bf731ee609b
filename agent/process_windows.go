package agent

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/windows"
)

// killPatience is how long hangup waits for processes that were terminated.
const killPatience = 10 * time.Second

// signalNumbers are of those signals of RFC 4254 §6.10 that mean something here, or by which a program's end is told.
var signalNumbers = map[string]int{"HUP": 1, "INT": 2, "KILL": 9, "TERM": 15}

// process is a program on the host, with the pipes it runs on, and everything it started that did not break away
// from its job object. It knows nothing of SSH.
type process struct {
	handle windows.Handle // of the leader
	job    *jobObject
	stdin  *os.File // our ends of the pipes
	stdout *os.File
	stderr *os.File

	exited chan struct{}  // closed when the leader has exited
	lost   chan struct{}  // closed when nobody is to see more of the output
	losing sync.Once      // closes lost
	shown  sync.WaitGroup // what copies the output
}

// startProcess starts a program in a job object of its own.
func startProcess(c command) (*process, error) {
	j, err := newJob()
	if err != nil {
		return nil, err
	}
	p := &process{job: j, exited: make(chan struct{}), lost: make(chan struct{})}
	if err := p.startOnPipes(c); err != nil {
		j.close()
		return nil, err
	}
	go p.watch()
	return p, nil
}

func (p *process) startOnPipes(c command) (err error) {
	var theirs [3]*os.File
	if theirs[0], p.stdin, err = os.Pipe(); err == nil {
		if p.stdout, theirs[1], err = os.Pipe(); err == nil {
			p.stderr, theirs[2], err = os.Pipe()
		}
	}
	if err == nil {
		p.handle, err = createOnFiles(c, p.job, theirs)
	}
	for _, f := range theirs {
		f.Close() // of a nil *os.File: an error, nothing else
	}
	if err != nil {
		p.closeFiles()
	}
	return err
}

// watch closes exited once the leader has exited.
func (p *process) watch() {
	windows.WaitForSingleObject(p.handle, windows.INFINITE)
	close(p.exited)
}

// Write sends input to the program. It blocks while the program reads none.
func (p *process) Write(b []byte) (int, error) {
	return p.stdin.Write(b)
}

// closeInput tells the program that no more input will come.
func (p *process) closeInput() { p.stdin.Close() }

// closeOutput tells the program, when it next writes to stdout, that nobody reads that.
func (p *process) closeOutput() {
	go p.stdout.Close() // which waits for a read
}

// attach shows the program's output until there is no more, or until gone is closed: then it returns errViewLost, and the program
// runs on, its output unseen. It is called once.
//
// The output ends when every process that holds stdout or stderr has closed it and the leader has exited.
func (p *process) attach(stdout, stderr io.Writer, gone <-chan struct{}) error {
	p.shown.Go(func() { p.show(stdout, p.stdout) })
	p.shown.Go(func() { p.show(stderr, p.stderr) })
	ended := make(chan struct{})
	go func() { p.shown.Wait(); close(ended) }()
	for _, event := range []<-chan struct{}{ended, p.exited} {
		select {
		case <-event:
		case <-gone:
			return p.lose()
		}
	}
	return nil
}

// show copies output until there is no more. When nobody is to see it any more, it goes on reading, so that a program which says
// something as it is hung up on can go on to tidy up.
func (p *process) show(w io.Writer, output *os.File) {
	buf := make([]byte, 32<<10)
	for {
		n, err := output.Read(buf)
		select {
		case <-p.lost:
		default:
			w.Write(buf[:n]) // an error: attach is about to hear that the guest has gone
		}
		if err != nil {
			return
		}
	}
}

func (p *process) lose() error {
	p.losing.Do(func() { close(p.lost) })
	return errViewLost
}

// hangup tells the program that its guest has gone, by the end of its input, and terminates what is left of its job after grace. It returns when none is left. Processes that broke away from the job asked to outlive it.
func (p *process) hangup(grace time.Duration) {
	p.lose()
	p.closeInput()
	if p.awaitEmpty(grace) {
		return
	}
	p.job.terminate(128 + signalNumber("KILL"))
	p.awaitEmpty(killPatience)
}

// awaitEmpty waits until the leader has exited and no process of its job is left, for patience at most.
func (p *process) awaitEmpty(patience time.Duration) bool {
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	select {
	case <-p.exited:
	case <-timeout.C:
		return false
	}
	for wait := time.Millisecond; ; wait = min(2*wait, 100*time.Millisecond) {
		if a, err := p.job.account(); err != nil || a.activeProcesses == 0 {
			return true
		}
		select {
		case <-time.After(wait):
		case <-timeout.C:
			return false
		}
	}
}

// release frees what is left once the output has ended or the program was hung up on, and returns how it ended. What it left
// behind in its job, if anything, is on its own from then on.
func (p *process) release() exit {
	p.closeFiles()
	p.shown.Wait()
	p.job.close()
	select {
	case <-p.exited:
	default: // stuck in the kernel even after it was terminated
		return exit{status: -1, signal: "KILL"}
	}
	defer windows.CloseHandle(p.handle)
	var code uint32
	if err := windows.GetExitCodeProcess(p.handle, &code); err != nil {
		return exit{status: 255}
	}
	return exit{status: int(code)}
}

func (p *process) closeFiles() {
	for _, f := range []*os.File{p.stdin, p.stdout, p.stderr} {
		f.Close()
	}
}

// signal does what comes nearest to a signal that the guest asked for: TERM and KILL terminate the program and all it has started.
func (p *process) signal(name string) error {
	if name == "TERM" || name == "KILL" {
		return p.job.terminate(128 + signalNumber(name))
	}
	return fmt.Errorf("signal %.16q means nothing to this program", name)
}

// interrupt is what a break on the line does.
func (p *process) interrupt() error {
	return errors.New("a break means nothing without a terminal")
}

// signalNumber is the number by which shells of other systems know a signal, 0 for those that mean nothing here.
func signalNumber(name string) int { return signalNumbers[name] }

// cpuTime is what the processes of the job have spent, ended ones included.
func (p *process) cpuTime() time.Duration {
	a, err := p.job.account()
	if err != nil {
		return 0
	}
	return time.Duration(a.userTime+a.kernelTime) * 100
}

// inheritNothing has nothing to do: programs inherit only what they are given.
func inheritNothing() {}
