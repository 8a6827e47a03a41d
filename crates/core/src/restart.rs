//! Restart by exit class (DESIGN section 7).
