// Package elector elects one leader among candidates.
package elector
