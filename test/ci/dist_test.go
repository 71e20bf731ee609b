package ci_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stagedoor/stagedoor/internal/testenv"
)

// root is that of the repository.
const root = "../.."

const builtVersion = "v1.2.3-test"

// platform is what programs are built for.
const platform = runtime.GOOS + "/" + runtime.GOARCH

// makeDist builds programs for this machine as a release does, from the source in
// src, into dir.
func makeDist(src, dir, programs string) error {
	make := exec.Command("make", "-s", "dist", "DIST_DIR="+dir, "DIST="+programs, "VERSION="+builtVersion)
	make.Dir = src
	if out, err := make.CombinedOutput(); err != nil {
		return fmt.Errorf("make dist: %w: %s", err, out)
	}
	return nil
}

// built is a directory with agent and gateway, made once for all tests.
var built = sync.OnceValues(func() (string, error) {
	var err error
	if distDir, err = os.MkdirTemp("", "stagedoor-dist"); err != nil {
		return "", err
	}
	return distDir, makeDist(root, distDir, "stagedoor-agent/"+platform+" stagedoor/"+platform)
})

var distDir string // empty until built is called; removed after the tests

func agentName() string { return "stagedoor-agent_" + runtime.GOOS + "_" + runtime.GOARCH }

func distribution(t *testing.T) string {
	t.Helper()
	testenv.Need(t, "make")
	dir, err := built()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestDist: the agent says which version it is, and SHA256SUMS what it is.
func TestDist(t *testing.T) {
	t.Parallel()
	dir := distribution(t)
	out, err := exec.CommandContext(t.Context(), filepath.Join(dir, agentName()), "version").Output()
	if want := "stagedoor-agent " + builtVersion + " " + runtime.Version(); err != nil || !strings.HasPrefix(string(out), want) {
		t.Errorf("%v: %q, want %s", err, out, want)
	}
	agent, err := os.ReadFile(filepath.Join(dir, agentName()))
	if err != nil {
		t.Fatal(err)
	}
	sums, err := os.ReadFile(filepath.Join(dir, "SHA256SUMS"))
	if want := fmt.Sprintf("%x  %s\n", sha256.Sum256(agent), agentName()); err != nil || !strings.Contains(string(sums), want) {
		t.Errorf("%v: %q, want %q", err, sums, want)
	}
}

// TestDistIsReproducible: built from the same source elsewhere, it is the same.
func TestDistIsReproducible(t *testing.T) {
	t.Parallel()
	dir := distribution(t)
	elsewhere := t.TempDir()
	copySource(t, elsewhere)
	if err := makeDist(elsewhere, "here", "stagedoor-agent/"+platform); err != nil {
		t.Fatal(err)
	}
	one, err := os.ReadFile(filepath.Join(dir, agentName()))
	if err != nil {
		t.Fatal(err)
	}
	if two, err := os.ReadFile(filepath.Join(elsewhere, "here", agentName())); err != nil || !bytes.Equal(one, two) {
		t.Errorf("it differs when it is built elsewhere: %v", err)
	}
}

// copySource copies what make dist needs.
func copySource(t *testing.T, to string) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		if d.IsDir() {
			if slices.Contains([]string{".git", "bin", "dist", "bench-out", "test"}, name) {
				return filepath.SkipDir
			}
			return os.MkdirAll(filepath.Join(to, name), 0o700)
		}
		info, err := d.Info()
		if err != nil || !info.Mode().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, name), data, info.Mode().Perm())
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestDistSparesOtherFiles: a directory may be named by mistake.
func TestDistSparesOtherFiles(t *testing.T) {
	t.Parallel()
	elsewhere := t.TempDir()
	copySource(t, elsewhere)
	precious := filepath.Join(elsewhere, "here", "precious")
	if err := errors.Join(os.Mkdir(filepath.Dir(precious), 0o700), os.WriteFile(precious, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	if err := makeDist(elsewhere, "here", "stagedoor-agent/"+platform); err == nil || !strings.Contains(err.Error(), "holds other files") {
		t.Errorf("error %v", err)
	}
	if _, err := os.Stat(precious); err != nil {
		t.Error(err)
	}
}
