using System.Text.Json;

namespace Vmm.Cli.Generate;

/// <summary>vmm-spec(5): every field of a VM spec, from its JSON schema.</summary>
internal static class SpecPage
{
    internal static string Write(string schema, DateTimeOffset date)
    {
        using JsonDocument document = JsonDocument.Parse(schema);
        RoffPage page = new("vmm-spec", 5, date);
        page.Section("Name").Text("vmm-spec - description of a virtual machine")
            .Section("Description").Text("""
                A VM spec is a YAML file. It is read by vmmctl run, vmmctl vm create and vmmctl spec validate; unknown fields are refused, and every problem is listed with its line.

                Sizes are numbers with a unit (512MiB, 1.5GiB), sets of CPUs and nodes are lists of ranges (0-3,8). Relative paths are relative to the file. vmmctl spec schema prints the JSON schema that this page is made of.
                """)
            .Section("Fields");
        Fields(page, document.RootElement, "");
        page.Section("Examples").Text("""
              name: web1
              cpus: 2
              memory: 1GiB
              boot:
                kernel: vmlinuz
                initrd: initrd.img
                cmdline: console=ttyS0 root=/dev/vda ro
              disks:
                - path: root.raw
                  serial: root
            """);
        page.Paragraph("More lie in /usr/share/doc/vmm/examples.").Section("See also").Text("vmmctl-run(1), vmmctl-vm(1), vmmctl-spec(1)");
        return page.ToString();
    }

    private static void Fields(RoffPage page, JsonElement schema, string path)
    {
        HashSet<string> required = [];
        if (schema.TryGetProperty("required", out JsonElement names))
        {
            required.UnionWith(names.EnumerateArray().Select(name => name.GetString()!));
        }

        foreach (JsonProperty field in schema.GetProperty("properties").EnumerateObject())
        {
            string name = path + field.Name;
            JsonElement shape = Object(field.Value);
            string suffix = shape.TryGetProperty("items", out JsonElement items) ? "[]" : "";
            string text = field.Value.GetProperty("description").GetString()!;
            page.Tagged(name + suffix, $"{text.TrimEnd('.')}.{(required.Contains(field.Name) ? " Required." : "")}{Limits(shape)}");
            foreach (JsonElement members in suffix.Length > 0 ? Kinds(items) : [shape])
            {
                if (members.ValueKind == JsonValueKind.Object && members.TryGetProperty("properties", out _))
                {
                    Fields(page, members, name + suffix + ".");
                }
            }
        }
    }

    /// <summary>What a member of a list may be: one thing, or one of several kinds.</summary>
    private static JsonElement[] Kinds(JsonElement items) =>
        items.TryGetProperty("oneOf", out JsonElement kinds) && kinds.EnumerateArray().All(kind => kind.TryGetProperty("properties", out _))
            ? [.. kinds.EnumerateArray()]
            : [Object(items)];

    /// <summary>A field that may also be given as true or false: the object among the choices has the fields.</summary>
    private static JsonElement Object(JsonElement schema)
    {
        foreach (string choice in new[] { "oneOf", "anyOf" })
        {
            if (schema.TryGetProperty(choice, out JsonElement choices))
            {
                return choices.EnumerateArray().FirstOrDefault(one => one.TryGetProperty("properties", out _), schema);
            }
        }

        return schema;
    }

    private static string Limits(JsonElement shape)
    {
        if (shape.TryGetProperty("enum", out JsonElement words))
        {
            return $" One of: {string.Join(", ", words.EnumerateArray().Select(word => word.ToString()))}.";
        }

        return shape.TryGetProperty("minimum", out JsonElement least) && shape.TryGetProperty("maximum", out JsonElement most)
            ? $" From {least} to {most}."
            : "";
    }
}
