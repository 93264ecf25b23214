"""The other sides, each in a process of its own: started once, then told one file after another."""
