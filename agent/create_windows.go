package agent

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"unsafe"

	"golang.org/x/sys/windows"
)

// loginShell returns the command interpreter that the system names.
func loginShell() string {
	if shell := os.Getenv("COMSPEC"); shell != "" {
		return shell
	}
	dir, _ := windows.GetSystemDirectory()
	return filepath.Join(dir, "cmd.exe")
}

// createOnFiles starts a program whose standard streams are files, with a console that nobody sees. The os package cannot put it
// into a job object before it runs: what it starts at once would be outside.
func createOnFiles(c command, j *jobObject, files [3]*os.File) (windows.Handle, error) {
	var std [3]windows.Handle
	for i, f := range files {
		std[i] = windows.Handle(f.Fd())
	}
	path, err := exec.LookPath(c.path) // with the suffix that the name may lack
	if err != nil {
		return 0, err
	}
	attributes, err := windows.NewProcThreadAttributeList(1)
	if err != nil {
		return 0, err
	}
	defer attributes.Delete()
	// The list keeps the program from inheriting the pipes of other sessions.
	if err := attributes.Update(windows.PROC_THREAD_ATTRIBUTE_HANDLE_LIST, unsafe.Pointer(&std[0]), unsafe.Sizeof(std)); err != nil {
		return 0, err
	}
	full := windows.StartupInfoEx{ProcThreadAttributeList: attributes.List()}
	full.Cb = uint32(unsafe.Sizeof(full))
	full.Flags, full.StdInput, full.StdOutput, full.StdErr = windows.STARTF_USESTDHANDLES, std[0], std[1], std[2]
	const flags = windows.CREATE_NO_WINDOW | windows.CREATE_SUSPENDED | windows.CREATE_UNICODE_ENVIRONMENT | windows.EXTENDED_STARTUPINFO_PRESENT
	var started windows.ProcessInformation
	if err := createProcess(path, c, flags, &full, &started); err != nil {
		return 0, &os.PathError{Op: "start", Path: path, Err: err}
	}
	defer windows.CloseHandle(started.Thread)
	if err = j.add(started.Process); err == nil {
		_, err = windows.ResumeThread(started.Thread)
	}
	if err != nil {
		windows.TerminateProcess(started.Process, 1)
		windows.CloseHandle(started.Process)
		return 0, fmt.Errorf("put %s into a job object: %w", path, err)
	}
	return started.Process, nil
}

func createProcess(path string, c command, flags uint32, info *windows.StartupInfoEx, started *windows.ProcessInformation) error {
	var texts [3]*uint16
	for i, text := range []string{path, commandLine(path, c.args), c.dir} {
		var err error
		if texts[i], err = windows.UTF16PtrFromString(text); err != nil {
			return err
		}
	}
	env, err := environmentBlock(c.env)
	if err != nil {
		return err
	}
	return windows.CreateProcess(texts[0], texts[1], nil, nil, true, flags, &env[0], texts[2], &info.StartupInfo, started)
}

// commandLine is how a program gets its arguments. A shell finds its command behind -c, as those of other systems and PowerShell
// want it. But cmd.exe splits nothing: behind /s /c it takes what stands between the first and the last quote as it is.
func commandLine(path string, args []string) string {
	if len(args) == 3 && args[1] == "-c" && strings.EqualFold(filepath.Base(path), "cmd.exe") {
		return windows.EscapeArg(path) + ` /d /s /c "` + args[2] + `"`
	}
	return windows.ComposeCommandLine(args)
}

// environmentBlock encodes variables as CreateProcess wants them: sorted, and no name twice in whatever case. Nothing starts without
// SYSTEMROOT.
func environmentBlock(env []string) (block []uint16, err error) {
	byName := map[string]string{"SYSTEMROOT": "SYSTEMROOT=" + os.Getenv("SYSTEMROOT")}
	for _, entry := range env {
		if name, _, _ := strings.Cut(entry, "="); name != "" { // those without are cmd.exe's own
			byName[strings.ToUpper(name)] = entry
		}
	}
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		entry, err := windows.UTF16FromString(byName[name])
		if err != nil {
			return nil, fmt.Errorf("variable %s: %w", name, err)
		}
		block = append(block, entry...)
	}
	return append(block, 0), nil
}
