package servicestest

import "os"

// LongProof reports whether the proofs run in full: make proof.
func LongProof() bool { return os.Getenv("GATEHOUSE_PROOF") == "1" }
