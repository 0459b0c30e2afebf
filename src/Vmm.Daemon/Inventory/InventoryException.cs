namespace Vmm.Daemon.Inventory;

/// <summary>The inventory file cannot be used.</summary>
public sealed class InventoryException : Exception
{
    /// <summary>Creates the error; the message names the file and what to do.</summary>
    public InventoryException(string message, Exception? inner = null) : base(message, inner) { }
}
