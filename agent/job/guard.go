package job

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"time"
)

// A Guard is a process that ends a job when the one that started it has gone without a word: killed with its process group when a
// CI system cancels the job the hard way, or for want of memory. It stands outside of that group, and keeps two lists: what to
// kill, and what to remove.
type Guard struct {
	cmd *exec.Cmd

	mu sync.Mutex // guards what follows
	w  io.WriteCloser
}

// StartGuard starts program, which is to call [RunGuard] with its standard input. It is told everything through that, and learns
// by its end that this process has gone.
func StartGuard(program string, args ...string) (*Guard, error) {
	cmd := exec.Command(program, args...)
	cmd.Env = []string{} // no secret is any of its business
	cmd.Dir = "/"
	ownSession(cmd)
	w, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the guard of the job: %w", err)
	}
	return &Guard{cmd: cmd, w: w}, nil
}

// Watch has the guard end a job, unless it was told before that the job has ended by itself.
func (g *Guard) Watch(j *Job) { g.tell("watch %d", j.ID()) }

// Unwatch tells that a job has ended. What it left in the background lives on, as without a guard.
func (g *Guard) Unwatch() { g.tell("unwatch") }

// Mark has the guard kill, when the job did not end by itself, every process that has this entry in its environment, such as
// NAME=VALUE: what guests have started is in other process groups. On Linux alone a process can be found so.
func (g *Guard) Mark(entry string) { g.tell("mark %s", strconv.Quote(entry)) }

// Remove has the guard remove a file, or a directory with all that is in it, in the end.
func (g *Guard) Remove(path string) { g.tell("remove %s", strconv.Quote(path)) }

// tell needs no answer: a guard that is gone cannot be helped.
func (g *Guard) tell(format string, args ...any) {
	if g == nil {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	fmt.Fprintf(g.w, format+"\n", args...)
}

// Close has the guard remove what it was told to, and waits until it has ended. A nil Guard does nothing, here as elsewhere.
func (g *Guard) Close() {
	if g == nil {
		return
	}
	g.tell("done")
	g.mu.Lock()
	g.w.Close()
	g.mu.Unlock()
	g.cmd.Wait()
}

// RunGuard is the guard: it reads what to do from r until that ends, and does it then. A job is ended by SIGTERM, and killed if it
// goes on for longer than grace.
func RunGuard(r io.Reader, grace time.Duration) {
	var watched int
	var mark string
	var remove []string
	for lines := bufio.NewScanner(r); lines.Scan(); {
		word, rest, _ := strings.Cut(lines.Text(), " ")
		switch word {
		case "watch":
			watched, _ = strconv.Atoi(rest)
		case "unwatch":
			watched = 0
		case "mark":
			mark, _ = strconv.Unquote(rest)
		case "done":
			mark = ""
		case "remove":
			if path, err := strconv.Unquote(rest); err == nil {
				remove = append(remove, path)
			}
		}
	}
	if watched != 0 {
		endJob(watched, grace)
	}
	if mark != "" {
		killMarked(mark)
	}
	for _, path := range remove {
		os.RemoveAll(path)
	}
}
