"""What each method trains, and the methods that stand beside the paper's."""
