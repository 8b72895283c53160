"""Makes avatars of people's photos and clips: uploads, jobs in a process of their own, and their routes."""
