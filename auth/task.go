package auth

import (
	"fmt"
	"strings"
)

// maxTaskID is the longest label that DNS allows: in end-to-end use the task is
// the host name that a guest types.
const maxTaskID = 63

// A TaskID names a task, in the form that [ParseTaskID] returns. It is the SSH
// user name of the task's guests and, end to end, the host name.
type TaskID string

// ParseTaskID checks and normalises the name of a task: 1 to 63 of a-z, 0-9,
// dot, underscore and hyphen, the first a letter or digit. Upper case is
// folded, because ssh(1) folds host names.
func ParseTaskID(s string) (TaskID, error) {
	if s == "" {
		return "", fmt.Errorf("task name is empty: use 1 to %d letters, digits, '.', '_' and '-'", maxTaskID)
	}
	if len(s) > maxTaskID {
		return "", fmt.Errorf("task name %.20q… is %d characters long, %d are allowed", s, len(s), maxTaskID)
	}
	folded := strings.Map(foldASCII, s)
	for i := range len(folded) {
		if !isTaskByte(folded[i], i == 0) {
			return "", fmt.Errorf("task name %q: %q is not allowed at position %d: use letters, digits, '.', '_' and '-', a letter or digit first", s, folded[i], i+1)
		}
	}
	return TaskID(folded), nil
}

// foldASCII folds ASCII alone: strings.ToLower would turn the Kelvin sign into
// a k.
func foldASCII(r rune) rune {
	if 'A' <= r && r <= 'Z' {
		return r + ('a' - 'A')
	}
	return r
}

func isTaskByte(c byte, first bool) bool {
	switch {
	case 'a' <= c && c <= 'z', '0' <= c && c <= '9':
		return true
	case c == '.' || c == '_' || c == '-':
		return !first
	}
	return false
}
