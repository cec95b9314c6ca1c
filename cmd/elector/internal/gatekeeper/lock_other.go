//go:build !unix

package gatekeeper

import (
	"errors"
	"os"
)

var errNoLock = errors.New("the gate needs file locks of a Unix system")

func tryLock(*os.File) (free bool, err error) { return false, errNoLock }

func awaitLock(*os.File) error { return errNoLock }
