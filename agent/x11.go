package agent

import "errors"

// forwardX11 makes a display for the session that leads to the guest's, RFC 4254 §6.3.1.
func (s *session) forwardX11(payload []byte) error { return errors.New("not supported") }

// closeX11 removes the display.
func (s *session) closeX11() {}

// setX11Environ tells the program which display there is.
func (s *session) setX11Environ(*environ) {}
