package agent

import (
	"fmt"
	"sync"
	"unsafe"

	"golang.org/x/sys/windows"
)

// jobObject is a program and everything it starts, but for what it starts with CREATE_BREAKAWAY_FROM_JOB, as setsid(2) asks
// for on other systems. Its end ends none of them.
type jobObject struct {
	mu     sync.Mutex
	handle windows.Handle // 0 once closed: the number may mean another object by then
}

// accounting is JOBOBJECT_BASIC_ACCOUNTING_INFORMATION. Times are in units of 100 ns.
type accounting struct {
	userTime, kernelTime int64
	_, _                 int64 // of this period
	_, _                 uint32
	activeProcesses      uint32
	_                    uint32
}

func newJob() (*jobObject, error) {
	handle, err := windows.CreateJobObject(nil, nil)
	if err != nil {
		return nil, fmt.Errorf("create a job object: %w", err)
	}
	limits := windows.JOBOBJECT_EXTENDED_LIMIT_INFORMATION{
		BasicLimitInformation: windows.JOBOBJECT_BASIC_LIMIT_INFORMATION{LimitFlags: windows.JOB_OBJECT_LIMIT_BREAKAWAY_OK},
	}
	_, err = windows.SetInformationJobObject(handle, windows.JobObjectExtendedLimitInformation,
		uintptr(unsafe.Pointer(&limits)), uint32(unsafe.Sizeof(limits)))
	if err != nil {
		windows.CloseHandle(handle)
		return nil, fmt.Errorf("set up a job object: %w", err)
	}
	return &jobObject{handle: handle}, nil
}

// use calls f with the handle, which stays valid meanwhile.
func (j *jobObject) use(f func(windows.Handle) error) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.handle == 0 {
		return windows.ERROR_INVALID_HANDLE
	}
	return f(j.handle)
}

// add puts a process into the job.
func (j *jobObject) add(process windows.Handle) error {
	return j.use(func(h windows.Handle) error { return windows.AssignProcessToJobObject(h, process) })
}

// terminate ends every process of the job, with an exit status.
func (j *jobObject) terminate(status int) error {
	return j.use(func(h windows.Handle) error { return windows.TerminateJobObject(h, uint32(status)) })
}

// account tells how many processes are in the job, and what it has spent.
func (j *jobObject) account() (a accounting, err error) {
	err = j.use(func(h windows.Handle) error {
		return windows.QueryInformationJobObject(h, windows.JobObjectBasicAccountingInformation,
			uintptr(unsafe.Pointer(&a)), uint32(unsafe.Sizeof(a)), nil)
	})
	return a, err
}

func (j *jobObject) close() {
	j.use(windows.CloseHandle)
	j.mu.Lock()
	defer j.mu.Unlock()
	j.handle = 0
}
