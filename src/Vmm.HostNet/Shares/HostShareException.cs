namespace Vmm.HostNet.Shares;

/// <summary>A folder of the host cannot be shared with a guest; the message says which, why, and what to do.</summary>
public sealed class HostShareException(string message, Exception? cause = null) : Exception(message, cause);
