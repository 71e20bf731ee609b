package publish

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// A File keeps the newest report in a file, as JSON. Who reads it sees a whole report, the old one or the new one.
type File struct{ Path string }

// Name is part of Sink.
func (f *File) Name() string { return "file " + f.Path }

// Publish is part of Sink.
func (f *File) Publish(_ context.Context, r Report) error {
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return replace(f.Path, append(data, '\n'))
}

// An EnvFile keeps the variables of the newest report in a file that a shell can read, with set -a and the dot command.
type EnvFile struct{ Path string }

// Name is part of Sink.
func (f *EnvFile) Name() string { return "environment file " + f.Path }

// Publish is part of Sink.
func (f *EnvFile) Publish(_ context.Context, r Report) error {
	var b strings.Builder
	for _, v := range r.Variables() {
		fmt.Fprintf(&b, "%s='%s'\n", v.Name, strings.ReplaceAll(v.Value, "'", `'\''`))
	}
	return replace(f.Path, []byte(b.String()))
}

// replace writes a file beside the one that it then takes the place of.
func replace(path string, data []byte) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	_, err = tmp.Write(data)
	if e := tmp.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Chmod(tmp.Name(), 0o644) // what collects artifacts may be another user
	}
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		os.Remove(tmp.Name())
	}
	return err
}
