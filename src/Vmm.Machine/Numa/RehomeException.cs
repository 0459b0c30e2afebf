namespace Vmm.Machine.Run;

/// <summary>A vnode cannot be moved.</summary>
public sealed class RehomeException : Exception
{
    /// <summary>Creates the error.</summary>
    public RehomeException(string message) : base(message) { }
}
