package testenv

import (
	"fmt"
	"os"
	"os/exec"
)

// Build compiles stagedoor and stagedoor-agent, with more flags for go build, into a
// directory that the caller removes. It is for TestMain, which has no test to fail.
func Build(flags ...string) (dir string, err error) {
	dir, err = os.MkdirTemp("", "stagedoor-build-")
	if err != nil {
		return "", err
	}
	const programs = "github.com/stagedoor/stagedoor/cmd/"
	build := exec.Command("go", append(append([]string{"build", "-o", dir + string(os.PathSeparator)}, flags...), programs+"stagedoor", programs+"stagedoor-agent")...)
	if out, err := build.CombinedOutput(); err != nil {
		os.RemoveAll(dir)
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return dir, nil
}
