package gateway

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"regexp"
	"strings"
	"time"
)

// Agents is a directory of agents' programs, one for each platform, with the file
// SHA256SUMS that says what they are: what `make dist` writes. It is looked at
// anew for each download, so another version can take its place at any time, and
// only what SHA256SUMS lists under the name of an agent is handed out.
type Agents struct{ dir string }

const (
	sumsFile = "SHA256SUMS"
	maxSums  = 64 << 10 // bytes of it that are read
)

// agentName is stagedoor-agent_OS_ARCH, in Go's words for both.
var agentName = regexp.MustCompile(`^stagedoor-agent_([a-z0-9]+)_([a-z0-9]+)(\.exe)?$`)

// agentFile is one of the programs. Its fields need no quoting in a shell.
type agentFile struct{ Name, OS, Arch, Sum string }

// OpenAgents returns the directory after it has read every program in it: one that
// is missing, or is not what SHA256SUMS says, is an error, and so is none at all.
func OpenAgents(dir string) (*Agents, error) {
	a := &Agents{dir: dir}
	root, files, err := a.open()
	if err != nil {
		return nil, err
	}
	defer root.Close()
	for _, file := range files {
		if err := check(root, file); err != nil {
			return nil, err
		}
	}
	return a, nil
}

func check(root *os.Root, file agentFile) error {
	f, err := root.Open(file.Name)
	if err != nil {
		return err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return fmt.Errorf("read %s: %w", f.Name(), err)
	}
	if hex.EncodeToString(h.Sum(nil)) != file.Sum {
		return fmt.Errorf("%s is not what %s says: copy the directory again, whole", f.Name(), sumsFile)
	}
	return nil
}

// open returns the directory as it is now, for the caller to close.
func (a *Agents) open() (*os.Root, []agentFile, error) {
	root, err := os.OpenRoot(a.dir)
	if err != nil {
		return nil, nil, err
	}
	files, err := readSums(root)
	if err == nil && len(files) == 0 {
		err = fmt.Errorf("%s lists no stagedoor-agent_OS_ARCH: copy what make dist writes", sumsFile)
	}
	if err != nil {
		root.Close()
		return nil, nil, err
	}
	return root, files, nil
}

func readSums(root *os.Root) ([]agentFile, error) {
	f, err := root.Open(sumsFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("there is no %s in it: copy what make dist writes", sumsFile)
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var files []agentFile
	lines := bufio.NewScanner(io.LimitReader(f, maxSums))
	for lines.Scan() {
		if file, ok := parseSum(lines.Text()); ok {
			files = append(files, file)
		}
	}
	return files, lines.Err()
}

// parseSum reads a line of sha256sum: the sum, a space, a space or an asterisk, and
// the name. It reports false for files that are no agents.
func parseSum(line string) (agentFile, bool) {
	sum, name, _ := strings.Cut(line, " ")
	if len(name) > 0 && (name[0] == ' ' || name[0] == '*') {
		name = name[1:]
	}
	match := agentName.FindStringSubmatch(name)
	if raw, err := hex.DecodeString(sum); match == nil || err != nil || len(raw) != sha256.Size {
		return agentFile{}, false
	}
	return agentFile{Name: name, OS: match[1], Arch: match[2], Sum: strings.ToLower(sum)}, true
}

// noAgents is for whoever finds none, who can only tell the operator.
const noAgents = "This gateway has no agents to hand out.\n\n" +
	"Its operator can change that: run make dist, copy the directory dist to the\n" +
	"gateway's machine, and name it in the gateway's configuration:\n\n" +
	"    https:\n      agents: /usr/local/share/stagedoor/agents\n"

// serveAgent hands out one program, or SHA256SUMS with those that there are.
func (s *Server) serveAgent(w http.ResponseWriter, r *http.Request) {
	root, files, err := s.openAgents()
	if err != nil {
		http.Error(w, noAgents, http.StatusNotFound)
		return
	}
	defer root.Close()
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Cache-Control", "no-cache") // but with an ETag: ask whether there is another
	name := r.PathValue("name")
	if name == sumsFile {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		for _, file := range files {
			fmt.Fprintf(w, "%s  %s\n", file.Sum, file.Name)
		}
		return
	}
	for _, file := range files {
		if file.Name == name {
			s.sendAgent(w, r, root, file)
			return
		}
	}
	http.Error(w, "There is no such agent; "+sumsFile+" lists those that there are.", http.StatusNotFound)
}

// openAgents is what the settings name, as it is now. What is wrong there the
// operator learns from the log.
func (s *Server) openAgents() (*os.Root, []agentFile, error) {
	agents := s.settings.Load().Agents
	if agents == nil {
		return nil, nil, errors.New("there are none")
	}
	root, files, err := agents.open()
	if err != nil {
		s.log.Error("cannot hand out agents", "directory", agents.dir, "error", err)
	}
	return root, files, err
}

func (s *Server) sendAgent(w http.ResponseWriter, r *http.Request, root *os.Root, file agentFile) {
	f, err := root.Open(file.Name)
	if err != nil {
		s.log.Error("cannot hand out an agent", "name", file.Name, "error", err)
		http.Error(w, "This agent is listed but cannot be read; tell the gateway's operator.", http.StatusNotFound)
		return
	}
	defer f.Close()
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("ETag", `"`+file.Sum+`"`)
	http.ServeContent(w, r, "", time.Time{}, f)
}
