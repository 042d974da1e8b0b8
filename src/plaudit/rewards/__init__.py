"""Where scores come from: functions of texts, and models learned from what people said."""
