namespace Vmm.Daemon.Storage;

/// <summary>A file of a spec is not there, not allowed, or cannot be opened; the message names it, the rule, and what to do.</summary>
public sealed class StorageException(string path, string why, Exception? inner = null) : Exception($"{path} {why}", inner);
