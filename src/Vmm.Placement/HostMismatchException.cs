namespace Vmm.Placement;

/// <summary>
/// A sound spec asks for what this host does not have: memory, nodes, address space, interrupt pins. The message is for the user, with the
/// numbers.
/// </summary>
/// <param name="message">What, which object, what to do.</param>
/// <param name="cause">What it follows from.</param>
public sealed class HostMismatchException(string message, Exception? cause = null) : Exception(message, cause);
