using System.Text;

namespace Vmm.State;

/// <summary>
/// Name of a unit in a machine and in its saved state, such as <c>vcpu0</c>, <c>serial</c> or <c>disk1/transport</c>: lower-case letters,
/// digits and <c>- . / _</c>, at most 64 characters. The same machine description always gives the same names.
/// </summary>
public readonly record struct PartId
{
    /// <summary>Longest name in characters.</summary>
    public const int MaxLength = 64;

    private readonly string? _name;

    /// <param name="name">The name.</param>
    /// <exception cref="FormatException">It is none.</exception>
    public PartId(string name)
    {
        if (!IsName(name))
        {
            throw new FormatException(
                $"'{StateText.Printable(name)}' is not a name of a unit: 1 to {MaxLength} of a-z, 0-9, '-', '.', '/', '_'.");
        }

        _name = name;
    }

    /// <summary>The name.</summary>
    public override string ToString() => _name ?? "";

    /// <summary>Of its name: the checksum of a unit goes on from here.</summary>
    internal uint Checksum => Crc32C.Of(Encoding.ASCII.GetBytes(ToString()));

    /// <summary>True when this is its name.</summary>
    public bool Is(string name) => string.Equals(_name, name, StringComparison.Ordinal);

    /// <summary>True for what may be a name.</summary>
    public static bool IsName(string? name)
    {
        if (name is not { Length: > 0 and <= MaxLength })
        {
            return false;
        }

        foreach (char c in name)
        {
            if (!char.IsAsciiLetterLower(c) && !char.IsAsciiDigit(c) && c is not ('-' or '.' or '/' or '_'))
            {
                return false;
            }
        }

        return true;
    }
}
