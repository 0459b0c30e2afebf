namespace Vmm.HostNet;

/// <summary>A network of the host cannot be used for a VM; the message says which, why, and what to do.</summary>
public sealed class HostNetException(string message, Exception? cause = null) : Exception(message, cause);
