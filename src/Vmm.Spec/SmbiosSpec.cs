namespace Vmm.Spec;

/// <summary>What the guest is told of its machine by SMBIOS; what is null has a default or is not told.</summary>
public sealed record SmbiosSpec
{
    /// <summary>Most characters of a text.</summary>
    public const int LongestText = 1024;

    /// <summary>Most OEM strings.</summary>
    public const int MostOemStrings = 32;

    /// <summary>Who made it.</summary>
    public string? Manufacturer { get; init; }

    /// <summary>What it is called.</summary>
    public string? Product { get; init; }

    /// <summary>Its version.</summary>
    public string? Version { get; init; }

    /// <summary>Its serial number; cloud-init looks here for <c>ds=nocloud…</c>.</summary>
    public string? Serial { get; init; }

    /// <summary>Its unique id; null: one of its own, which stays.</summary>
    public string? Uuid { get; init; }

    /// <summary>Its stock keeping unit.</summary>
    public string? Sku { get; init; }

    /// <summary>The family of products it belongs to.</summary>
    public string? Family { get; init; }

    /// <summary>OEM strings (type 11), for programs of the guest that look for some: credentials of systemd.</summary>
    public IReadOnlyList<string>? OemStrings { get; init; }

    internal void Check(SpecComplaints check)
    {
        CheckText(Manufacturer, "manufacturer", check);
        CheckText(Product, "product", check);
        CheckText(Version, "version", check);
        CheckText(Serial, "serial", check);
        CheckText(Sku, "sku", check);
        CheckText(Family, "family", check);
        check.Require(Uuid is null || Guid.TryParseExact(Uuid, "D", out _), "smbios.uuid",
            $"\"{Uuid}\", expected a UUID such as 6b29fc40-ca47-1067-b31d-00dd010662da");
        int count = OemStrings?.Count ?? 0;
        check.Require(count <= MostOemStrings, "smbios.oemStrings", $"{count} strings, at most {MostOemStrings}");
        for (int i = 0; i < Math.Min(count, MostOemStrings); i++)
        {
            CheckText(OemStrings![i], $"oemStrings[{i}]", check);
        }
    }

    private static void CheckText(string? text, string field, SpecComplaints check)
    {
        if (text is null)
        {
            return;
        }

        bool fits = text.Length is > 0 and <= LongestText && !text.AsSpan().ContainsAnyExceptInRange(' ', '~');
        check.Require(fits, "smbios." + field, $"expected 1 to {LongestText} printable ASCII characters, as SMBIOS has them");
    }
}
